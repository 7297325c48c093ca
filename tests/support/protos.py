"""Messages of a schema, as the library of protocol buffers itself writes them."""

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_MESSAGE = re.compile(r"message (\w+) \{(.*?)\}", re.DOTALL)
_FIELD = re.compile(r"(optional|repeated) (\w+) (\w+) = (\d+);")
_KINDS = descriptor_pb2.FieldDescriptorProto


def message_types(package: str, schema: str) -> dict[str, Any]:
    """Return the classes of the messages in a schema; its fields are optional or repeated."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    for name, body in _MESSAGE.findall(schema):
        message = file.message_type.add(name=name)
        for label, kind, field, number in _FIELD.findall(body):
            added = message.field.add(name=field, number=int(number))
            added.label = getattr(_KINDS, f"LABEL_{label.upper()}")
            if kind[0].isupper():
                added.type, added.type_name = _KINDS.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                added.type = getattr(_KINDS, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessageClassesForFiles([file.name], pool)
    return {name.rpartition(".")[2]: kind for name, kind in found.items()}


XPLANE = message_types(
    "xplane",
    """
    message XSpace { repeated XPlane planes = 1; repeated string errors = 2; }
    message XPlane {
        optional int64 id = 1; optional string name = 2; repeated XLine lines = 3;
        repeated EventEntry event_metadata = 4; repeated StatEntry stat_metadata = 5;
    }
    message XLine {
        optional int64 id = 1; optional string name = 2; optional int64 timestamp_ns = 3;
        repeated XEvent events = 4; optional int64 duration_ps = 9;
        optional string display_name = 11;
    }
    message XEvent {
        optional int64 metadata_id = 1; optional int64 offset_ps = 2;
        optional int64 duration_ps = 3; repeated XStat stats = 4;
    }
    message XStat {
        optional int64 metadata_id = 1; optional double double_value = 2;
        optional uint64 uint64_value = 3; optional int64 int64_value = 4;
        optional string str_value = 5; optional uint64 ref_value = 7;
    }
    message EventEntry { optional int64 key = 1; optional XEventMetadata value = 2; }
    message XEventMetadata {
        optional int64 id = 1; optional string name = 2; optional string display_name = 4;
    }
    message StatEntry { optional int64 key = 1; optional XStatMetadata value = 2; }
    message XStatMetadata { optional int64 id = 1; optional string name = 2; }
    """,
)
"""The messages of OpenXLA's `xplane.proto` that the tests write; a map is a list of entries."""
