"""instructor, which has a tool called and fails without a call."""

import os
from typing import Literal

import instructor
from openai import AsyncOpenAI
from pydantic import BaseModel

URL = os.environ["URL"]
client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="ollama", timeout=120)


class Weather(BaseModel):
    sky: Literal["clear", "grey"]
    degrees: Literal[3, 20]


async def modes():
    found = {}
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON):
        patched = instructor.from_openai(client, mode=mode)
        answer = await patched.chat.completions.create(
            model="chatter",
            response_model=Weather,
            messages=[{"role": "user", "content": 'The weather in Oslo? Answer {"sky": "clear", "degrees": 3}.'}],
            max_retries=0,
            temperature=0,
            max_tokens=60,
        )
        found[mode.name] = answer.model_dump()
    return found
