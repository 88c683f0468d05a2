"""Wordings and values of requests for three home tools: those of training, and others for evaluation.

Knows sentences only; which values fill them, and how many rows there are, is for `own_rows`. A sentence has {time},
{minutes} or {room} where a value stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_TRAIN_ALARM = (
    "Wake me at {time}",
    "Please wake me up at {time}.",
    "Can you wake me at {time} tomorrow?",
    "Set an alarm for {time}",
    "set alarm {time}",
    "Could you set an alarm for {time}, please?",
    "alarm {time}",
    "I need an alarm at {time}",
    "New alarm: {time}",
    "Add an alarm at {time}",
    "Create an alarm for {time} please",
    "Put an alarm on for {time}.",
    "I have to get up at {time}",
    "I must be up by {time}, so set something",
    "Make sure I'm awake at {time}",
    "I have a train to catch, get me up at {time}",
    "It's a big day tomorrow. Alarm at {time}!",
    "I'd like to be woken at {time}",
    "Would you wake me at {time}?",
    "wake up {time} thx",
    "{time} alarm please",
    "{time}, that's when I want to get up",
    "Let the alarm ring at {time}",
    "Have the alarm go off at {time}",
    "I want the alarm to sound at {time}",
    "Hey, I can't oversleep, alarm for {time}",
    "We have to leave soon after, so wake us at {time}",
    "Schedule an alarm at {time}",
    "Taking a nap, wake me at {time}",
    "My shift begins soon after, so {time} for the alarm",
)
_TRAIN_ALARM_SNOOZE = (
    "Wake me at {time}, and again {minutes} minutes later",
    "Set an alarm for {time} with {minutes} minutes of snooze",
    "set alarm {time} snooze {minutes}",
    "alarm {time}, snooze {minutes} min",
    "Alarm at {time}, please, with a snooze of {minutes} minutes.",
    "I need an alarm at {time} that rings again after {minutes} minutes",
    "Get me up at {time}; the snooze should take {minutes} minutes",
    "Can you set {time} as alarm and {minutes} minutes as snooze?",
    "{minutes} minute snooze on an alarm at {time}",
    "Ring at {time} and repeat after {minutes} minutes",
    "With {minutes} minutes to snooze, wake me up at {time}",
    "Add an alarm at {time} and let me snooze for {minutes} minutes",
    "I'm slow to get up: {time}, snooze every {minutes} minutes",
    "Please create an alarm, {time}, snoozing {minutes} minutes",
)
_TRAIN_STOP = (
    "Cancel the alarm at {time}",
    "Please cancel my {time} alarm.",
    "Stop the {time} alarm",
    "stop alarm {time}",
    "Turn off the alarm at {time}",
    "Could you turn my {time} alarm off?",
    "Switch off the alarm for {time}",
    "alarm {time} off",
    "Delete the alarm at {time}",
    "Remove my alarm for {time}, please",
    "I don't need the alarm at {time} any more",
    "I won't need the {time} alarm tomorrow",
    "No alarm at {time} please",
    "The {time} alarm can go",
    "The alarm at {time} is not needed",
    "Disable the alarm at {time}",
    "Kill the {time} alarm",
    "Drop my alarm of {time}",
    "Take out the alarm at {time}",
    "I can sleep longer tomorrow, cancel {time}",
    "The meeting is off, so cancel the alarm at {time}",
    "Don't wake me at {time} after all",
    "You don't have to wake me at {time}",
    "Please don't ring at {time}",
    "I changed my mind about the alarm at {time}, stop it",
    "I'm already up, turn off the {time} one",
    "I am on holiday. Stop the {time} alarm",
    "get rid of the {time} alarm",
    "Can you delete {time} from my alarms?",
    "Would you please stop my alarm at {time}?",
    "Clear the alarm that is set for {time}",
    "cancel {time} alarm thx",
    "That alarm at {time}? Turn it off",
    "There is an alarm at {time}; I want it gone",
    "I set an alarm for {time} by mistake, delete it",
    "Wrong time, remove the {time} alarm",
    "My shift changed: alarm at {time} off, please",
    "School is closed, no need for the alarm at {time}",
    "Hey, make the alarm at {time} stop",
    "Deactivate the alarm for {time}",
    "Undo the alarm at {time}",
    "I'd like to cancel the one at {time}",
    "End the alarm of {time}",
    "Take back my {time} alarm, would you?",
)
_TRAIN_ON = (
    "Light on in the {room}",
    "Turn on the light in the {room}",
    "Turn the {room} light on, please.",
    "Switch on the {room} light",
    "switch {room} light on",
    "{room} light on",
    "{room} on please",
    "Can you turn on the lights in the {room}?",
    "Could you put the light on in the {room}?",
    "It is too dark in the {room}",
    "It's dark in the {room}, I can't see a thing",
    "I can't see anything in the {room}",
    "I'm going into the {room}, light please",
    "I need light in the {room}",
    "We need some light in the {room}",
    "Let there be light in the {room}",
    "Start the {room} lights",
    "The {room} light should be on",
    "I want the lights of the {room} on",
    "Why is the light off in the {room}? Turn it on",
    "Hey, lights on, {room}!",
    "I'm reading in the {room} and it gets dark, switch the light on",
)
_TRAIN_OFF = (
    "Switch the {room} light off",
    "Turn off the light in the {room}",
    "Turn the lights off in the {room}, please.",
    "switch off {room}",
    "{room} lights out",
    "{room} light off",
    "Lights off in the {room}",
    "Could you switch off the light in the {room}?",
    "Please shut off the {room} light",
    "Kill the lights in the {room}",
    "I left the light on in the {room}, turn it off",
    "Nobody is in the {room}, so light off",
    "It is too bright in the {room}",
    "The {room} doesn't need light now",
    "I don't need the light in the {room} any more",
    "The {room} light can go out",
    "No light in the {room} please",
    "I'm done in the {room}, switch the light off",
    "We are leaving the {room}, lights off",
    "The light is still on in the {room}! Off, please",
    "The lights of the {room} should be off",
    "I'm going to sleep, {room} light off",
)
_EVAL_ALARM = (
    "Don't let me sleep past {time}",
    "Buzz me at {time}",
    "Get me out of bed at {time}",
    "Could there be a wake-up call at {time}?",
    "Rise and shine at {time} it is",
    "Ping me awake when it is {time}",
    "Program the clock to beep at {time}",
    "The bus won't wait: beep at {time}",
    "My eyes should open at {time} sharp, see to it",
    "Rouse me at {time}, will you",
    "Up at {time} tomorrow!",
)
_EVAL_ALARM_SNOOZE = (
    "Buzz at {time}, and once more {minutes} minutes after that",
    "Rouse me at {time}; grant me {minutes} extra minutes",
    "Beep at {time}. Snooze length: {minutes} minutes",
    "Wake-up call {time}, {minutes} min in between",
    "Get me out of bed at {time}, though I may doze on for {minutes} minutes",
    "{time} is when it should go off, dozing for {minutes} minutes allowed",
)
_EVAL_STOP = (
    "Scrap the {time} alarm",
    "Call off the wake-up at {time}",
    "Forget about the alarm I had for {time}",
    "Let me sleep through {time}, no ringing",
    "Unset {time}",
    "Silence the alarm planned for {time}",
    "Could the {time} one be taken off the list?",
    "Erase my wake-up time {time}",
    "Nothing should ring at {time}, thanks",
    "Nix the alarm at {time}",
    "It turns out I'm free, so skip the alarm at {time}",
    "About {time}: I'll stay in bed, drop that alarm",
    "Abort the {time} alarm",
    "Whatever was going to buzz at {time}, shut it down",
    "Is an alarm on for {time}? Then switch it off",
    "The alarm for {time} has become pointless, scrap it",
    "Spare me the noise at {time}",
)
_EVAL_ON = (
    "Illuminate the {room}",
    "Brighten up the {room}",
    "The {room} is pitch black",
    "Hit the lights in the {room}",
    "I keep stumbling around in the {room}, do something about the lamp",
    "Lamp in the {room}: on",
    "Would you light the {room} for me?",
    "Flick the {room} switch on",
    "Make it bright in the {room}",
)
_EVAL_OFF = (
    "Darken the {room}",
    "Make the {room} dark",
    "Lamp in the {room}: off",
    "Everybody has gone from the {room}, save some power there",
    "Put out the light in the {room}",
    "Flick the {room} switch off",
    "The lamp in the {room} is burning for no one",
    "Black out the {room}, would you",
)

TRAIN_NO_CALL = (
    ("How are you today?", "I am fine, thank you. How can I help?"),
    ("Good morning!", "Good morning! What can I do for you?"),
    ("Thanks a lot", "You are welcome."),
    ("Tell me a joke", "Why did the clock blush? Its hands were on its face."),
    ("Who wrote Faust?", "Goethe wrote Faust."),
    ("What is the capital of Peru?", "The capital of Peru is Lima."),
    ("What's the weather like tomorrow?", "I cannot look up the weather."),
    ("Will it rain this evening?", "I cannot look up the weather."),
    ("What time is it?", "I cannot read the clock."),
    ("How long did I sleep last night?", "I do not know how long you slept."),
    ("Play some music in the kitchen", "I cannot play music."),
    ("Put on my running playlist", "I cannot play music."),
    ("Make the bedroom light blue", "I can switch lights on and off, but not change their colour."),
    ("Dim the hall light to thirty percent", "I can switch lights on and off, but not dim them."),
    ("Set an alarm", "At what time?"),
    ("Can you wake me tomorrow?", "At what time?"),
    ("Cancel my alarm", "Which alarm, at what time?"),
    ("Turn on the light", "In which room?"),
    ("lights off", "In which room?"),
    ("Which alarms do I have?", "I can set and stop alarms, but not list them."),
    ("Is the light on in the office?", "I can switch lights, but not see whether they are on."),
    ("Open the garage door", "I cannot open doors."),
    ("Lock the front door please", "I cannot lock doors."),
    ("Set the heating to 21 degrees", "I cannot control the heating."),
    ("It's cold in the bathroom", "I cannot control the heating."),
    ("Order a pizza for eight o'clock", "I cannot order food."),
    ("Call my sister", "I cannot make calls."),
    ("Send a message to Paul that I'm late", "I cannot send messages."),
    ("Remind me to buy milk", "I can set alarms, but not reminders."),
    ("Book a table for two at 7 pm", "I cannot book tables."),
    ("Start a timer for ten minutes", "I can set alarms, but not timers."),
    ("Turn off the TV in the living room", "I cannot switch televisions."),
    ("Close the blinds in the office", "I cannot move blinds."),
    ("How many minutes are there in a day?", "A day has 1,440 minutes."),
    ("I slept badly, I was so tired at 9", "I am sorry to hear that."),
    ("The kitchen looks lovely today", "I am glad that you like it."),
)
EVAL_NO_CALL = (
    ("Hi there, what's your name?", "I am your home assistant."),
    ("See you later", "Goodbye!"),
    ("Translate good night into Spanish", "Good night is buenas noches."),
    ("Vacuum the study", "I cannot vacuum."),
    ("Is there any traffic on the way to work?", "I cannot look up the traffic."),
    ("Make the alarm louder", "I can set and stop alarms, but not change how loud they are."),
    ("Warm white for the porch lamp please", "I can switch lights on and off, but not change their colour."),
    ("Boil some water at half past six", "I cannot boil water."),
    ("I woke up at 5:20 for no reason", "I hope that you sleep better tonight."),
)

TRAIN_VALUES: Mapping[str, tuple[str | int, ...]] = {
    "time": tuple(
        "05:30 05:45 06:00 06:15 06:30 06:45 07:00 07:15 07:20 07:30 07:45 08:00 08:10 08:15 08:30 08:45 09:00 09:15"
        " 09:30 09:50 10:00 10:30 13:00 14:30 15:15 16:00 17:45 18:30 19:00 20:15 21:00 22:30".split()
    ),
    "minutes": (2, 3, 5, 10, 15, 20),
    "room": (
        *("kitchen", "hall", "bedroom", "bathroom", "living room", "office", "garage", "attic", "cellar", "nursery"),
        *("dressing room", "guest room", "playroom", "workshop"),
    ),
}
NEW_VALUES: Mapping[str, tuple[str | int, ...]] = {
    "time": tuple(
        "05:00 05:20 05:55 06:05 06:20 06:50 07:10 07:40 07:55 08:05 08:20 09:10 09:45 10:15 11:00 14:00 15:45 17:20"
        " 18:10 20:30 21:40".split()
    ),
    "minutes": (4, 6, 7, 8, 12, 25),
    "room": (
        "pantry",
        "study",
        "dining room",
        "laundry room",
        "music room",
        "conservatory",
        "library",
        "gym",
        "greenhouse",
    ),
}
"""Values that no training row has; nearly half of the evaluation rows with a call have such values."""


@dataclass(frozen=True)
class Pattern:
    """A wording of requests for one tool.

    Attributes:
        tool: The tool's name.
        text: The request, with {time}, {minutes} or {room} where a value stands.
        state: The light's state that it asks for; "" for other tools.
    """

    tool: str
    text: str
    state: str = ""


def _group(tool: str, state: str, texts: Sequence[str]) -> tuple[Pattern, ...]:
    return tuple(Pattern(tool, text, state) for text in texts)


TRAIN_PATTERNS: Mapping[str, tuple[tuple[Pattern, ...], ...]] = {
    "set_alarm": (_group("set_alarm", "", _TRAIN_ALARM), _group("set_alarm", "", _TRAIN_ALARM_SNOOZE)),
    "stop_alarm": (_group("stop_alarm", "", _TRAIN_STOP),),
    "set_light": (_group("set_light", "on", _TRAIN_ON), _group("set_light", "off", _TRAIN_OFF)),
}
EVAL_PATTERNS: Mapping[str, tuple[tuple[Pattern, ...], ...]] = {
    "set_alarm": (_group("set_alarm", "", _EVAL_ALARM), _group("set_alarm", "", _EVAL_ALARM_SNOOZE)),
    "stop_alarm": (_group("stop_alarm", "", _EVAL_STOP),),
    "set_light": (_group("set_light", "on", _EVAL_ON), _group("set_light", "off", _EVAL_OFF)),
}
