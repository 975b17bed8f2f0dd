"""A second parser, written to be compared with: the whole body at once, in the steps of HTML 9.2.5 and 9.2.6, slow."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """events: (type, data, last event ID) each."""

    events: list[tuple[str, str, str]]
    last_event_id: str
    reconnection_time: int | None


def parse(body: bytes) -> Outcome:
    """What a client has after the body, of which nothing more will come."""
    text = body.decode("utf-8", "replace")  # of the whole, before any line is cut
    if text.startswith("\ufeff") and body.startswith(b"\xef\xbb\xbf"):
        text = text[1:]
    lines, line, position = [], "", 0
    while position < len(text):
        char = text[position]
        if char == "\r" and text[position + 1 : position + 2] == "\n":
            position += 1
        if char in "\r\n":
            lines.append(line)
            line = ""
        else:
            line += char
        position += 1
    return _interpret(lines)  # the line that has not ended is left out


def _interpret(lines: list[str]) -> Outcome:
    events = []
    data = event_type = id_buffer = last_event_id = ""
    reconnection_time = None
    for line in lines:
        if line == "":
            last_event_id = id_buffer
            if data != "":
                events.append((event_type if event_type != "" else "message", data[:-1], last_event_id))
            data = event_type = ""
            continue
        if line[0] == ":":
            continue
        field, value = line, ""
        if ":" in line:
            colon = line.index(":")
            field, value = line[:colon], line[colon + 1 :]
            if value.startswith(" "):
                value = value[1:]
        if field == "event":
            event_type = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            id_buffer = value
        elif field == "retry" and value != "" and all(char in "0123456789" for char in value):
            reconnection_time = int(value)
    return Outcome(events, last_event_id, reconnection_time)
