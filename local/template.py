"""What template.yaml says: functions with their routes, and tables. Nothing is run that is not in there.

Only what is asked for is resolved, so an intrinsic in a policy is none of our business; one that stands where we
look and that we do not know is an error.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from local.errors import CannotStart

Node = str | int | float | bool | None | list["Node"] | dict[str, "Node"]
Properties = dict[str, Node]

REGION: Final = "us-east-1"
ACCOUNT: Final = "000000000000"
STACK_NAME: Final = "pi-voice-local"
"""Not a name that somebody deploys under: pointed at a real DynamoDB, the tables are still our own."""

_PSEUDO_PARAMETERS: Final[Mapping[str, Node]] = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": STACK_NAME,
    "AWS::URLSuffix": "amazonaws.com",
}
_WITHOUT_LOCAL_COUNTERPART: Final = {"AWS::Logs::LogGroup"}
_API_PROPERTIES: Final = {"AccessLogSettings", "DefaultRouteSettings", "Description", "Name", "StageName"}
_CREATE_TABLE: Final = {"AttributeDefinitions", "BillingMode", "GlobalSecondaryIndexes", "KeySchema"}
_TABLE_PROPERTIES: Final = {
    *_CREATE_TABLE,
    "DeletionProtectionEnabled",
    "PointInTimeRecoverySpecification",
    "SSESpecification",
    "TableName",
    "TimeToLiveSpecification",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the HTTP API, such as GET /agents/{agent_id}."""

    method: str
    path: str

    @property
    def key(self) -> str:
        """The route as API Gateway names it."""
        return f"{self.method} {self.path}"


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
    has_url: bool

    @property
    def arn(self) -> str:
        """The name by which AWS knows the function everywhere."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.name}"


@dataclass(frozen=True, slots=True)
class Table:
    """One DynamoDB table: the arguments of CreateTable, and the attribute by which items expire."""

    name: str
    definition: Properties
    ttl_attribute: str | None


@dataclass(frozen=True, slots=True)
class Template:
    """All that runs locally."""

    functions: tuple[Function, ...]
    tables: tuple[Table, ...]
    layers: tuple[Path, ...]


def load(path: Path, overrides: Mapping[str, str]) -> Template:
    """Read a SAM template; `overrides` win over the functions' own environment variables of the same name.

    Raises CannotStart where the template holds what is not understood here.
    """
    try:
        document = yaml.load(path.read_text(), _Loader)  # noqa: S506 (a SafeLoader)
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CannotStart(f"{path.name} cannot be read: {reason}.") from None
    return _Reader(document, path.parent.resolve(), overrides).template()


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short tags, which become their long forms."""


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
    """One template being read; `_at` says where, for the sentence that names a fault."""

    document: Properties
    folder: Path
    overrides: Mapping[str, str]
    _at: str = "The template"

    def template(self) -> Template:
        functions, tables, layers = [], [], []
        for logical_id, resource in self._resources():
            self._at = logical_id
            properties = self._mapping(resource.get("Properties", {}))
            match resource.get("Type"):
                case "AWS::Serverless::Function":
                    functions.append(self._function(logical_id, properties))
                case "AWS::DynamoDB::Table":
                    tables.append(self._table(logical_id, properties))
                case "AWS::Serverless::LayerVersion":
                    layers.append(self._folder(properties.get("ContentUri")))
                case "AWS::Serverless::HttpApi":
                    self._refuse_others(properties, _API_PROPERTIES)
                case kind if kind not in _WITHOUT_LOCAL_COUNTERPART:
                    raise self._refusal(f"is of the type {kind}, which does not run locally")
        return Template(tuple(functions), tuple(tables), tuple(layers))

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
        return Function(
            logical_id=logical_id,
            name=self._name(logical_id, own, "FunctionName"),
            code=self._folder(merged.get("CodeUri")),
            handler=self._text(merged.get("Handler")),
            layers=tuple(self._layer(node) for node in layers),
            environment=self._environment(shared) | self._environment(own) | dict(self.overrides),
            timeout_seconds=self._number(merged.get("Timeout", 3)),
            memory_mb=self._number(merged.get("MemorySize", 128)),
            routes=tuple(self._routes(own)),
            has_url=self._has_url(own),
        )

    def _environment(self, properties: Properties) -> dict[str, str]:
        variables = self._mapping(self._mapping(properties.get("Environment", {})).get("Variables", {}))
        for name in variables.keys() & self.overrides.keys():
            self._hold_to_parameter(name, variables[name])
        return {
            name: self._text(node)
            for name, node in variables.items()
            if name not in self.overrides  # so a parameter without a default need not have a value here
        }

    def _hold_to_parameter(self, variable: str, node: Node) -> None:
        """Refuse a local value that the parameter behind a variable would not take; empty is unset."""
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

    def _routes(self, properties: Properties) -> Iterator[Route]:
        for node in self._mapping(properties.get("Events", {})).values():
            event = self._mapping(node)
            if event.get("Type") != "HttpApi":
                raise self._refusal(f"has an event of the type {event.get('Type')}, which does not run locally")
            details = self._mapping(event.get("Properties", {}))
            self._refuse_others(details, {"ApiId", "Method", "Path"})
            method, path = self._text(details.get("Method")), self._text(details.get("Path"))
            yield Route(method.upper(), path)

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
                return [self._resolve(item) for item in node]
            case dict() if name := _intrinsic(node):
                return self._call(name, node)
            case dict():
                return {key: self._resolve(value) for key, value in node.items()}
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
            case {"Fn::Equals": [left, right]}:
                return self._text(left) == self._text(right)
        raise self._refusal(f"uses {intrinsic} in a way that is not understood locally")

    def _ref(self, name: str) -> Node:
        if name in _PSEUDO_PARAMETERS:
            return _PSEUDO_PARAMETERS[name]
        parameters = self._mapping(self.document.get("Parameters", {}))
        if name in parameters:
            parameter = self._mapping(parameters[name])
            if "Default" not in parameter:
                raise self._refusal(f"needs the parameter {name}, which has no default and no local value")
            return parameter["Default"]
        return self._attribute(name, "Ref")

    def _attribute(self, logical_id: str, attribute: str) -> str:
        resource = self._mapping(self._mapping(self.document.get("Resources", {})).get(logical_id, {}))
        properties = self._mapping(resource.get("Properties", {}))
        match resource.get("Type"), attribute:
            case "AWS::DynamoDB::Table", "Ref":
                return self._name(logical_id, properties, "TableName")
            case "AWS::DynamoDB::Table", "Arn":
                table = self._name(logical_id, properties, "TableName")
                return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}"
            case "AWS::Serverless::Function", "Ref":
                return self._name(logical_id, properties, "FunctionName")
        raise self._refusal(f"uses {attribute} of {logical_id}, which is not understood locally")

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
            raise self._refusal(f"depends on the condition {node!r}, which is not there")
        return self._resolve(conditions[node]) is True

    # ---- Faults ----

    def _refuse_others(self, properties: Properties, known: set[str]) -> None:
        if others := sorted(properties.keys() - known):
            raise self._refusal(f"has the property {others[0]}, which does not run locally")

    def _refusal(self, what: str) -> CannotStart:
        return CannotStart(f"{self._at} {what}.")


def _intrinsic(node: Properties) -> str | None:
    """Return the name of the intrinsic function that a mapping of one key is, None for any other mapping."""
    names = [key for key in node if key in {"Ref", "Condition"} or key.startswith("Fn::")]
    return names[0] if len(node) == 1 and names else None
