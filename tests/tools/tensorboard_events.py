"""Reading back what was written for TensorBoard."""
import struct

from tensorboardX.proto.event_pb2 import Event


def scalars(folder):
    """Return the scalars in the event files of ``folder``: a dict of tags → lists of values."""
    values = {}
    for path in sorted(folder.iterdir()):
        data, position = path.read_bytes(), 0
        while position < len(data):  # a record: length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", data, position)
            event = Event.FromString(data[position + 12:position + 12 + length])
            for value in event.summary.value:
                values.setdefault(value.tag, []).append(value.simple_value)
            position += length + 16
    return values
