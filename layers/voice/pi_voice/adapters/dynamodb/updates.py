"""Update expressions of DynamoDB from changes of attributes."""

from typing import Any, NamedTuple

from pi_voice.adapters.dynamodb.attributes import Item


class IfAbsent(NamedTuple):
    """A value for an attribute that has none yet."""

    value: Any


class Appended(NamedTuple):
    """An element to append to a list, which may be absent."""

    value: Any


class Update(NamedTuple):
    """An update expression, with the names and the values that it uses."""

    expression: str
    names: dict[str, str]
    values: Item


def update_of(changes: Item) -> Update:
    """Return the update that sets attributes; None removes one."""
    sets, removed, values = [], [], Item()
    for name, value in changes.items():
        match value:
            case None:
                removed.append(f"#{name}")
            case IfAbsent(first):
                sets.append(f"#{name} = if_not_exists(#{name}, :{name})")
                values[f":{name}"] = first
            case Appended(element):
                sets.append(f"#{name} = list_append(if_not_exists(#{name}, :no_{name}), :{name})")
                values |= {f":{name}": [element], f":no_{name}": []}
            case _:
                sets.append(f"#{name} = :{name}")
                values[f":{name}"] = value
    expression = f"SET {', '.join(sets)}" + (f" REMOVE {', '.join(removed)}" if removed else "")
    return Update(expression, {f"#{name}": name for name in changes}, values)
