"""Three tools of a home: what they do here is to remember. The parameter `type` is one that the chat template hides."""

from typing import Literal

LIGHTS: dict[str, int] = {}
ALARMS: list[dict[str, str]] = []


def set_alarm(time: str, type: Literal["once", "daily"] = "once") -> dict:
    """Set an alarm.

    Args:
        time: When it rings, such as "07:15".
        type: How often it rings.
    """
    ALARMS.append({"time": time, "type": type})
    return {"alarm": len(ALARMS), "time": time}


def set_light(room: str, level: int) -> dict:
    """Set the light of a room.

    Args:
        room: The room.
        level: How bright, from 0 to 100.
    """
    LIGHTS[room] = level
    return {"room": room, "level": level}


def list_alarms() -> list:
    """List all alarms."""
    return ALARMS
