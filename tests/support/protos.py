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


PERFETTO = message_types(
    "perfetto",
    """
    message Trace { repeated TracePacket packet = 1; }
    message TracePacket {
        optional ClockSnapshot clock_snapshot = 6; optional uint64 timestamp = 8;
        optional uint32 trusted_packet_sequence_id = 10; optional TrackEvent track_event = 11;
        optional InternedData interned_data = 12; optional uint32 sequence_flags = 13;
        optional bytes compressed_packets = 50; optional uint32 timestamp_clock_id = 58;
        optional TracePacketDefaults trace_packet_defaults = 59;
        optional TrackDescriptor track_descriptor = 60;
    }
    message ClockSnapshot { repeated Clock clocks = 1; }
    message Clock {
        optional uint32 clock_id = 1; optional uint64 timestamp = 2;
        optional bool is_incremental = 3; optional uint64 unit_multiplier_ns = 4;
    }
    message TracePacketDefaults {
        optional TrackEventDefaults track_event_defaults = 11;
        optional uint32 timestamp_clock_id = 58;
    }
    message TrackEventDefaults { optional uint64 track_uuid = 11; }
    message TrackDescriptor {
        optional uint64 uuid = 1; optional string name = 2; optional ProcessDescriptor process = 3;
        optional ThreadDescriptor thread = 4; optional uint64 parent_uuid = 5;
        optional CounterDescriptor counter = 8;
    }
    message ProcessDescriptor { optional int32 pid = 1; optional string process_name = 6; }
    message ThreadDescriptor {
        optional int32 pid = 1; optional int32 tid = 2; optional string thread_name = 5;
    }
    message CounterDescriptor { optional int32 unit = 3; }
    message InternedData {
        repeated InternedText event_categories = 1; repeated InternedText event_names = 2;
        repeated InternedText debug_annotation_names = 3;
    }
    message InternedText { optional uint64 iid = 1; optional string name = 2; }
    message TrackEvent {
        repeated uint64 category_iids = 3; repeated DebugAnnotation debug_annotations = 4;
        optional int32 type = 9; optional uint64 name_iid = 10; optional uint64 track_uuid = 11;
        repeated string categories = 22; optional string name = 23;
        optional int64 counter_value = 30;
        optional double double_counter_value = 44; repeated fixed64 flow_ids = 47;
    }
    message DebugAnnotation {
        optional uint64 name_iid = 1; optional uint64 uint_value = 3; optional int64 int_value = 4;
        optional string string_value = 6; optional string name = 10;
    }
    """,
)
"""The messages of Perfetto's `perfetto_trace.proto` that the tests write and read."""
