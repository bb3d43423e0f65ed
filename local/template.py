"""Read template.yaml: functions with their events, tables and queues. The local stack runs only what it defines.

Only the values that the local stack uses are resolved, so an intrinsic in a policy is ignored. An unknown intrinsic in
a value that is used is an error.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import yaml

from local.errors import CannotStart

Node = str | int | float | bool | None | list["Node"] | dict[str, "Node"]
Properties = dict[str, Node]

REGION: Final = "us-east-1"
ACCOUNT: Final = "000000000000"
STACK_NAME: Final = "pi-voice-local"
"""Differs from the names of deployed stacks, so that with a real DynamoDB the local stack has its own tables."""

_PSEUDO_PARAMETERS: Final[Mapping[str, Node]] = {
    "AWS::AccountId": ACCOUNT,
    "AWS::NoValue": None,  # removes the property
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": STACK_NAME,
    "AWS::URLSuffix": "amazonaws.com",
}
_WITHOUT_LOCAL_COUNTERPART: Final = {
    "AWS::CloudWatch::Alarm",
    "AWS::IAM::ManagedPolicy",
    "AWS::Logs::LogGroup",
}
_API_PROPERTIES: Final = {
    "AccessLogSettings",
    "CorsConfiguration",
    "DefaultRouteSettings",
    "Description",
    "Name",
    "StageName",
}
_CORS_PROPERTIES: Final = {"AllowHeaders", "AllowMethods", "AllowOrigins", "ExposeHeaders", "MaxAge"}
_CREATE_TABLE: Final = {"AttributeDefinitions", "BillingMode", "GlobalSecondaryIndexes", "KeySchema"}
_TABLE_PROPERTIES: Final = {
    *_CREATE_TABLE,
    "DeletionProtectionEnabled",
    "PointInTimeRecoverySpecification",
    "SSESpecification",
    "TableName",
    "TimeToLiveSpecification",
}
_NAMES: Final[Mapping[Node, str]] = {
    "AWS::DynamoDB::Table": "TableName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::Serverless::Function": "FunctionName",
}
_QUEUE_ATTRIBUTES: Final = {
    "DeduplicationScope",
    "FifoQueue",
    "FifoThroughputLimit",
    "MessageRetentionPeriod",
    "SqsManagedSseEnabled",
    "VisibilityTimeout",
}
_LARGEST_BATCH: Final = 10
"""Limit of one ReceiveMessage; Lambda builds larger batches only with a batching window."""

_EVERY: Final = re.compile(r"rate\((?:1 minute|([2-9]|[1-9]\d+) minutes)\)")


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the HTTP API, such as GET /agents/{agent_id}."""

    method: str
    path: str

    @property
    def key(self) -> str:
        """API Gateway's route key."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class QueueEvents:
    """An event source mapping: the queue of a function, and how its messages are delivered."""

    queue: str
    batch_size: int
    reports_failures: bool
    max_concurrency: int | None

    @property
    def queue_arn(self) -> str:
        """The queue's ARN."""
        return _queue_arn(self.queue)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule with its interval in minutes."""

    name: str
    minutes: int

    @property
    def arn(self) -> str:
        """The ARN of the EventBridge rule."""
        return f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{STACK_NAME}-{self.name}"


@dataclass(frozen=True, slots=True)
class Function:
    """One Lambda function."""

    logical_id: str
    name: str
    code: Path
    handler: str
    layers: tuple[Path, ...]
    environment: Mapping[str, str]
    timeout_seconds: int
    memory_mb: int
    routes: tuple[Route, ...]
    queues: tuple[QueueEvents, ...]
    schedules: tuple[Schedule, ...]
    has_url: bool

    @property
    def arn(self) -> str:
        """The function's ARN."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.name}"


@dataclass(frozen=True, slots=True)
class Table:
    """One DynamoDB table: the arguments of CreateTable, and the TTL attribute."""

    name: str
    definition: Properties
    ttl_attribute: str | None


@dataclass(frozen=True, slots=True)
class Queue:
    """One SQS queue: its attributes, its dead-letter queue, and the receives before a message goes there."""

    name: str
    attributes: Mapping[str, str]
    dead_letters: str | None
    max_receives: int


@dataclass(frozen=True, slots=True)
class Cors:
    """The CORS configuration of the HTTP API."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    exposed: tuple[str, ...]
    max_age: int | None
    allows_loopback: bool = False
    """Whether all pages on loopback may call the API too, with any port."""


@dataclass(frozen=True, slots=True)
class Template:
    """The parts of the template that run locally."""

    functions: tuple[Function, ...]
    tables: tuple[Table, ...]
    queues: tuple[Queue, ...]
    layers: tuple[Path, ...]
    cors: Cors | None


_NONE: Final[Mapping[str, str]] = {}


def load(
    path: Path,
    overrides: Mapping[str, str],
    parameters: Mapping[str, str] = _NONE,
    queue_urls: Mapping[str, str] = _NONE,
) -> Template:
    """Read a SAM template; `overrides` replace the functions' environment variables of the same name.

    `parameters` replace the defaults of the template's parameters. A queue that is not in `queue_urls` gets an AWS URL.
    Raises CannotStart if the template uses something that this reader does not support.
    """
    try:
        document = yaml.load(path.read_text(), _Loader)  # noqa: S506 (a SafeLoader)
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CannotStart(f"{path.name} cannot be read: {reason}.") from None
    return _Reader(document, path.parent.resolve(), overrides, parameters, queue_urls).template()


class _Loader(yaml.CSafeLoader):
    """A YAML loader that converts CloudFormation's short tags to their long forms; libyaml's, for a quick start."""


def _long_form(loader: _Loader, name: str, node: yaml.ScalarNode | yaml.SequenceNode) -> Properties:
    value: Node
    if isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)
    if name == "GetAtt" and isinstance(value, str):
        value = list(value.split(".", 1))
    return {name if name in {"Ref", "Condition"} else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _long_form)


@dataclass
class _Reader:
    """Reads one template; `_at` is the current resource, for error messages."""

    document: Properties
    folder: Path
    overrides: Mapping[str, str]
    parameters: Mapping[str, str]
    queue_urls: Mapping[str, str]
    _at: str = "The template"

    def template(self) -> Template:
        functions, mappings, tables, queues, layers, cors = [], [], [], [], [], None
        for logical_id, resource in self._resources():
            self._at = logical_id
            properties = self._mapping(resource.get("Properties", {}))
            match resource.get("Type"):
                case "AWS::Serverless::Function":
                    functions.append(self._function(logical_id, properties))
                case "AWS::DynamoDB::Table":
                    tables.append(self._table(logical_id, properties))
                case "AWS::SQS::Queue":
                    queues.append(self._queue(logical_id, properties))
                case "AWS::Serverless::LayerVersion":
                    layers.append(self._folder(properties.get("ContentUri")))
                case "AWS::Serverless::HttpApi":
                    cors = self._cors(properties)
                case "AWS::Lambda::EventSourceMapping":
                    mappings.append(self._event_source_mapping(properties))
                case kind if kind not in _WITHOUT_LOCAL_COUNTERPART:
                    raise self._refusal(f"is of the type {kind}, which does not run locally")
        functions = [
            replace(each, queues=tuple(events for name, events in mappings if name == each.logical_id))
            for each in functions
        ]
        return Template(tuple(functions), tuple(tables), tuple(queues), tuple(layers), cors)

    def _resources(self) -> Iterator[tuple[str, Properties]]:
        for logical_id, node in self._mapping(self.document.get("Resources", {})).items():
            resource = self._mapping(node)
            if "Condition" not in resource or self._condition(resource["Condition"]):
                yield logical_id, resource

    # ---- Resources ----

    def _function(self, logical_id: str, own: Properties) -> Function:
        shared = self._mapping(self._mapping(self.document.get("Globals", {})).get("Function", {}))
        merged = {**shared, **own}
        layers = [*self._list(shared.get("Layers", [])), *self._list(own.get("Layers", []))]
        events = list(self._events(logical_id, own))
        return Function(
            logical_id=logical_id,
            name=self._name(logical_id, own, "FunctionName"),
            code=self._folder(merged.get("CodeUri")),
            handler=self._text(merged.get("Handler")),
            layers=tuple(self._layer(node) for node in layers),
            environment=self._environment(shared) | self._environment(own) | dict(self.overrides),
            timeout_seconds=self._number(merged.get("Timeout", 3)),
            memory_mb=self._number(merged.get("MemorySize", 128)),
            routes=tuple(event for event in events if isinstance(event, Route)),
            queues=(),
            schedules=tuple(event for event in events if isinstance(event, Schedule)),
            has_url=self._has_url(own),
        )

    def _environment(self, properties: Properties) -> dict[str, str]:
        variables = self._mapping(self._mapping(properties.get("Environment", {})).get("Variables", {}))
        for name in variables.keys() & self.overrides.keys():
            self._check_against_parameter(name, variables[name])
        return {
            name: self._text(node)
            for name, node in variables.items()
            if name not in self.overrides  # so a parameter without a default may be unset
        }

    def _check_against_parameter(self, variable: str, node: Node) -> None:
        """Raise CannotStart if the parameter behind a variable would not accept its local value; empty means unset."""
        value = self.overrides[variable]
        match node:
            case {"Ref": str(name)} if value and name in self._mapping(self.document.get("Parameters", {})):
                parameter = self._mapping(self._mapping(self.document["Parameters"])[name])
            case _:
                return
        allowed = [str(choice) for choice in self._list(parameter.get("AllowedValues", []))]
        if allowed and value not in allowed:
            raise CannotStart(f"{variable} is {value!r}: it should be one of {', '.join(allowed)}.")
        pattern = parameter.get("AllowedPattern")
        if isinstance(pattern, str) and not re.search(pattern, value):
            raise CannotStart(
                f"{variable} is {value!r}: it should be {parameter.get('ConstraintDescription', pattern)}."
            )
        if parameter.get("Type") == "Number":
            low, high = self._number(parameter.get("MinValue", 0)), self._number(parameter.get("MaxValue", 2**31))
            if not value.isdecimal() or not low <= int(value) <= high:
                raise CannotStart(f"{variable} is {value!r}: it should be a number from {low} to {high}.")

    def _events(self, logical_id: str, properties: Properties) -> Iterator[Route | Schedule]:
        for name, node in self._mapping(properties.get("Events", {})).items():
            event = self._mapping(node)
            details = self._mapping(event.get("Properties", {}))
            match event.get("Type"):
                case "HttpApi":
                    yield self._route(details)
                case "Schedule":
                    yield self._schedule(logical_id + name, details)
                case kind:
                    raise self._refusal(f"has an event of the type {kind}, which does not run locally")

    def _route(self, details: Properties) -> Route:
        self._refuse_others(details, {"ApiId", "Method", "Path"})
        return Route(self._text(details.get("Method")).upper(), self._text(details.get("Path")))

    def _event_source_mapping(self, details: Properties) -> tuple[str, QueueEvents]:
        """Return the function's logical id and its queue events."""
        match details.get("FunctionName"):
            case {"Ref": str(function)}:
                return function, self._queue_events(details)
        raise self._refusal("has a function that is not a !Ref to one of the template's own")

    def _queue_events(self, details: Properties) -> QueueEvents:
        self._refuse_others(
            details, {"BatchSize", "EventSourceArn", "FunctionName", "FunctionResponseTypes", "ScalingConfig"}
        )
        batch_size = self._number(details.get("BatchSize", _LARGEST_BATCH))
        if not 1 <= batch_size <= _LARGEST_BATCH:
            raise self._refusal(f"has a BatchSize of {batch_size}: from 1 to {_LARGEST_BATCH} runs locally")
        responses = self._list(details.get("FunctionResponseTypes", []))
        if responses not in ([], ["ReportBatchItemFailures"]):
            raise self._refusal(f"has the FunctionResponseTypes {responses}, which do not run locally")
        scaling = self._mapping(details.get("ScalingConfig", {}))
        self._refuse_others(scaling, {"MaximumConcurrency"})
        concurrency = self._number(scaling["MaximumConcurrency"]) if scaling else None
        return QueueEvents(self._queue_behind(details.get("EventSourceArn")), batch_size, bool(responses), concurrency)

    def _schedule(self, name: str, details: Properties) -> Schedule:
        self._refuse_others(details, {"RetryPolicy", "Schedule"})
        rate = self._text(details.get("Schedule"))
        every = _EVERY.fullmatch(rate)
        if not every:
            raise self._refusal(f"has the schedule {rate!r}, and only one such as rate(5 minutes) runs locally")
        return Schedule(name, int(every[1] or 1))

    def _has_url(self, properties: Properties) -> bool:
        if "FunctionUrlConfig" not in properties:
            return False
        if self._mapping(properties["FunctionUrlConfig"]) != {"AuthType": "NONE"}:
            raise self._refusal("has a function URL that is more than AuthType NONE, which is all that runs locally")
        return True

    def _layer(self, node: Node) -> Path:
        match node:
            case {"Ref": str(logical_id)}:
                resources = self._mapping(self.document.get("Resources", {}))
                layer = self._mapping(resources.get(logical_id, {}))
                return self._folder(self._mapping(layer.get("Properties", {})).get("ContentUri"))
        raise self._refusal("has a layer that is not a !Ref to one of the template's own")

    def _table(self, logical_id: str, properties: Properties) -> Table:
        self._refuse_others(properties, _TABLE_PROPERTIES)
        name = self._name(logical_id, properties, "TableName")
        definition: Properties = {"TableName": name}
        for key in _CREATE_TABLE & properties.keys():
            definition[key] = self._resolve(properties[key])
        ttl = self._mapping(self._resolve(properties.get("TimeToLiveSpecification", {})))
        attribute = self._text(ttl.get("AttributeName")) if ttl.get("Enabled") else None
        return Table(name, definition, attribute)

    def _queue(self, logical_id: str, properties: Properties) -> Queue:
        self._refuse_others(properties, {*_QUEUE_ATTRIBUTES, "QueueName", "RedrivePolicy"})
        attributes = {key: self._text(properties[key]) for key in sorted(_QUEUE_ATTRIBUTES & properties.keys())}
        name, dead_letters, max_receives = self._name(logical_id, properties, "QueueName"), None, 0
        if "RedrivePolicy" in properties:
            policy = self._mapping(properties["RedrivePolicy"])
            self._refuse_others(policy, {"deadLetterTargetArn", "maxReceiveCount"})
            dead_letters = self._queue_behind(policy.get("deadLetterTargetArn"))
            max_receives = self._number(policy.get("maxReceiveCount"))
        return Queue(name, attributes, dead_letters, max_receives)

    def _queue_behind(self, node: Node) -> str:
        """Return the name of the queue that a !GetAtt Arn refers to."""
        match node:
            case {"Fn::GetAtt": [str(logical_id), "Arn"]}:
                return self._attribute(logical_id, "QueueName")
        raise self._refusal("has a queue that is not the !GetAtt Arn of one of the template's own")

    def _cors(self, api: Properties) -> Cors | None:
        self._refuse_others(api, _API_PROPERTIES)
        configuration = self._resolve(api.get("CorsConfiguration"))
        if configuration is None:
            return None
        cors = self._mapping(configuration)
        self._refuse_others(cors, _CORS_PROPERTIES)
        return Cors(
            origins=self._texts(cors.get("AllowOrigins", [])),
            methods=self._texts(cors.get("AllowMethods", [])),
            headers=self._texts(cors.get("AllowHeaders", [])),
            exposed=self._texts(cors.get("ExposeHeaders", [])),
            max_age=self._number(cors["MaxAge"]) if "MaxAge" in cors else None,
        )

    # ---- Values ----

    def _name(self, logical_id: str, properties: Properties, key: str) -> str:
        return self._text(properties.get(key, f"{STACK_NAME}-{logical_id}"))

    def _folder(self, node: Node) -> Path:
        path = self.folder / self._text(node)
        if not path.is_dir():
            raise self._refusal(f"has its code in {path}, which is not a folder")
        return path

    def _text(self, node: Node) -> str:
        match self._resolve(node):
            case bool(value):
                return str(value).lower()
            case str() | int() | float() as value:
                return str(value)
        raise self._refusal(f"has {node!r} where a text belongs")

    def _texts(self, node: Node) -> tuple[str, ...]:
        return tuple(self._text(item) for item in self._list(self._resolve(node)))

    def _number(self, node: Node) -> int:
        text = self._text(node)
        if not text.isdecimal():
            raise self._refusal(f"has {text!r} where a number belongs")
        return int(text)

    def _mapping(self, node: Node) -> Properties:
        if not isinstance(node, dict) or _intrinsic(node):
            raise self._refusal(f"has {node!r} where a plain mapping belongs")
        return node

    def _list(self, node: Node) -> list[Node]:
        if not isinstance(node, list):
            raise self._refusal(f"has {node!r} where a plain list belongs")
        return node

    # ---- Intrinsics ----

    def _resolve(self, node: Node) -> Node:
        match node:
            case list():
                return [value for item in node if (value := self._resolve(item)) is not None]
            case dict() if name := _intrinsic(node):
                return self._call(name, node)
            case dict():
                return {key: value for key, item in node.items() if (value := self._resolve(item)) is not None}
        return node

    def _call(self, intrinsic: str, node: Properties) -> Node:
        match node:
            case {"Ref": str(name)}:
                return self._ref(name)
            case {"Fn::Sub": str(text)}:
                return self._substitute(text)
            case {"Fn::GetAtt": [str(logical_id), str(attribute)]}:
                return self._attribute(logical_id, attribute)
            case {"Fn::If": [str(name), yes, no]}:
                return self._resolve(yes if self._condition(name) else no)
            case {"Fn::Join": [str(separator), items]}:
                return separator.join(self._texts(items))
        raise self._refusal(f"uses {intrinsic} in a way that is not supported locally")

    def _ref(self, name: str) -> Node:
        if name in _PSEUDO_PARAMETERS:
            return _PSEUDO_PARAMETERS[name]
        parameters = self._mapping(self.document.get("Parameters", {}))
        if name in parameters:
            parameter = self._mapping(parameters[name])
            value = self.parameters.get(name, parameter.get("Default"))
            if value is None:
                raise self._refusal(f"needs the parameter {name}, which has no default and no local value")
            if parameter.get("Type") == "CommaDelimitedList":
                return self._items(name, parameter, self._text(value))
            return value
        return self._attribute(name, "Ref")

    def _items(self, name: str, parameter: Properties, value: str) -> list[Node]:
        """Split a list, and check its items as CloudFormation does; raises CannotStart."""
        items: list[Node] = [item.strip() for item in value.split(",")]
        pattern = self._text(parameter.get("AllowedPattern", ""))
        for item in items:
            if not re.search(pattern, str(item)):
                expected = parameter.get("ConstraintDescription", pattern)
                raise CannotStart(f"The parameter {name} has {item!r}: it should be {expected}.")
        return items

    def _attribute(self, logical_id: str, attribute: str) -> str:
        resource = self._mapping(self._mapping(self.document.get("Resources", {})).get(logical_id, {}))
        kind, properties = resource.get("Type"), self._mapping(resource.get("Properties", {}))
        name = self._name(logical_id, properties, _NAMES[kind]) if kind in _NAMES else ""
        match kind, attribute:
            case ("AWS::DynamoDB::Table" | "AWS::Serverless::Function", "Ref") | ("AWS::SQS::Queue", "QueueName"):
                return name
            case "AWS::DynamoDB::Table", "Arn":
                return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}"
            case "AWS::SQS::Queue", "Arn":
                return _queue_arn(name)
            case "AWS::SQS::Queue", "Ref":
                return self.queue_urls.get(name, f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{name}")
        raise self._refusal(f"uses {attribute} of {logical_id}, which is not supported locally")

    def _substitute(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("!"):
                return f"${{{name[1:]}}}"
            return self._text({"Fn::GetAtt": [*name.split(".", 1)]} if "." in name else {"Ref": name})

        return re.sub(r"\$\{([^}]+)\}", value, text)

    def _condition(self, node: Node) -> bool:
        conditions = self._mapping(self.document.get("Conditions", {}))
        if not isinstance(node, str) or node not in conditions:
            raise self._refusal(f"depends on the condition {node!r}, which does not exist")
        return self._holds(conditions[node])

    def _holds(self, condition: Node) -> bool:
        match condition:
            case {"Fn::Equals": [left, right]}:
                return self._text(left) == self._text(right)
            case {"Fn::Not": [other]}:
                return not self._holds(other)
        raise self._refusal(f"depends on the condition {condition!r}, which is not supported locally")

    # ---- Errors ----

    def _refuse_others(self, properties: Properties, known: set[str]) -> None:
        if others := sorted(properties.keys() - known):
            raise self._refusal(f"has the property {others[0]}, which does not run locally")

    def _refusal(self, what: str) -> CannotStart:
        return CannotStart(f"{self._at} {what}.")


def _queue_arn(name: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


def _intrinsic(node: Properties) -> str | None:
    """Return the name of the intrinsic function that a mapping with one key calls; None for any other mapping."""
    names = [key for key in node if key in {"Ref", "Condition"} or key.startswith("Fn::")]
    return names[0] if len(node) == 1 and names else None
