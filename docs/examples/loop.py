"""A request carried out to its end: the model calls, your functions run, the model reads what they gave back.

Run it as `python loop.py MODEL "set the light in the kitchen to 40"`, with the folder of a model that was tuned on the
tools of home_tools.py. This file is yours to copy: nothing in it is needed but `load_caller`.
"""

import sys

from home_tools import list_alarms, set_alarm, set_light

from fgtools import load_caller

FUNCTIONS = {function.__name__: function for function in (set_alarm, set_light, list_alarms)}

MOST_STEPS = 4
"""Answers to one request at most: a model may call without end."""


def run(call):
    """Carry a call out; what goes wrong is told to the model, as a result."""
    try:
        return FUNCTIONS[call.name](**call.arguments)
    except (LookupError, TypeError, ValueError) as error:
        return error


def main(model, request):
    """Answer a request and print every step; return whether it came to an end."""
    caller = load_caller(model, list(FUNCTIONS.values()))
    answer = caller.call(request)
    for _ in range(MOST_STEPS):
        if not answer.calls:
            break
        for call in answer.calls:
            result = run(call)
            print(f"{call.name}({call.arguments}) -> {result}")
            answer = caller.respond(call, result)
    if answer.calls:
        print(f"stopped after {MOST_STEPS} steps: the model calls on")
        return False
    print(f"{answer.kind}: {answer.text or answer.validity}")
    return answer.kind == "text"


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1], sys.argv[2]) else 1)
