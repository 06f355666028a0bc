"""The practice server: made-up answers that come as slowly as those of a model, and some that do not come."""

import random
import re

from questions.examples import CAPITALS

from chatpool.testing import Answer, Delay, Error, Stream

KNOWN = {  # by words of the question
    "sky blue": "Sunlight holds all colours. On its way through the air the short blue waves are scattered far more "
    "than the long red ones, so blue light reaches us from every part of the sky. At sunset the way is longer, most of "
    "the blue is gone by then, and red is what is left.",
    "bees": "A bee knows the sun's place in the sky, and how it moves through the day. She adds up turns and distances "
    "on the way out, keeps landmarks in mind for the last stretch, and flies home in a straight line.",
    "before paper": "Clay in Mesopotamia, papyrus in Egypt, bamboo and silk in China, bark in India, parchment in "
    "Europe. Most letters of everyday life were scratched into wax, smoothed, and written again.",
    **{f"capital of {country.lower()}?": f"{capital}." for country, capital in CAPITALS.items()},
}
OTHERWISE = (
    "There is more to this than one would think: {question} People have asked it for a long time.",
    "In short: it depends. The longer answer to “{question}” begins with what you measure it by.",
    "A practice server cannot know. It only shows how an answer to “{question}” would arrive, word by word.",
    "Yes and no. Most of what is written about “{question}” is older than it looks, and some of it is even true.",
)


def answer(request):
    """Answer a request as a model would; a question with the word "fail" is refused, one in 30 finds a busy server."""
    dice = random.Random(f"{request.prompt} {request.number}")
    if re.search(r"\bfail\b", request.prompt):
        return Error(400, "The practice server was asked to fail.")
    if dice.random() < 1 / 30:
        return Error(503, headers={"retry-after": "1"})
    text = next((text for words, text in KNOWN.items() if words in request.prompt.lower()), None)
    if text is None:
        text = random.Random(request.prompt).choice(OTHERWISE).format(question=request.prompt[:200])
    if request.body.get("stream"):
        return Delay(dice.uniform(0.2, 1.2), then=Stream(re.findall(r"\s*\S+", text), every=dice.uniform(0.04, 0.12)))
    return Delay(dice.uniform(0.4, 2.4), then=Answer(text))
