"""LangChain's clients for Ollama and OpenAI, LlamaIndex, and LiteLLM with its two providers."""

import json
import os
from typing import Literal

os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "corral", "LANGSMITH_TRACING": "false"}

import litellm
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel

URL = os.environ["URL"]
QUESTION = "What is the weather in Oslo?"


class Weather(BaseModel):
    """The weather now."""

    sky: Literal["clear", "grey"]
    degrees: Literal[3, 20]


def _get_weather(city: Literal["Oslo", "Rome"], days: Literal[1, 2]) -> str:
    """The weather of a city."""
    return f"clear in {city}, 3 C"


_get_weather.__name__ = "get_weather"


def _langchain(model, embeddings):
    whole = model.invoke(QUESTION)
    deltas = [part.text for part in model.stream(QUESTION)]
    return {
        "text": whole.text,
        "deltas": deltas,
        "usage": whole.usage_metadata["output_tokens"],
        "vectors": embeddings.embed_documents(["the sky", "grass"]),
    }


def _langchain_agent(model):
    weather = tool(_get_weather)
    forcing = model.bind_tools([weather], tool_choice="get_weather")
    turns = [HumanMessage(QUESTION)]
    called = forcing.invoke(turns)
    (call,) = called.tool_calls
    turns += [called, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    answer = model.bind_tools([weather], tool_choice="none").invoke(turns)
    return _agent(call, answer, _sum(forcing.stream(QUESTION)))


def _sum(parts):
    first, *others = parts
    for part in others:
        first += part
    return first


def _agent(call, answer, streamed):
    calls = [[call["name"], call["args"]] for call in streamed.tool_calls]
    return {"call": [call["name"], call["args"]], "answer": answer.text, "streamed": calls}


def langchain_ollama():
    model = ChatOllama(model="chatter", base_url=URL, temperature=0, num_predict=12, validate_model_on_init=True)
    return _langchain(model, OllamaEmbeddings(model="bert", base_url=URL))


def langchain_ollama_tools():
    model = ChatOllama(model="caller", base_url=URL, temperature=0, num_predict=60)
    weather = tool(_get_weather)
    turns = [HumanMessage(QUESTION)]
    called = model.bind_tools([weather]).invoke(turns)
    (call,) = called.tool_calls
    turns += [called, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    answer = ChatOllama(model="chatter", base_url=URL, temperature=0, num_predict=12).invoke(turns)
    streamed = _sum(model.bind_tools([weather]).stream(QUESTION))
    return _agent(call, answer, streamed)


def langchain_ollama_parsed():
    model = ChatOllama(model="chatter", base_url=URL, temperature=0, num_predict=60)
    return model.with_structured_output(Weather).invoke(QUESTION).model_dump()


def langchain_openai():
    model = ChatOpenAI(model="chatter", base_url=f"{URL}/v1", temperature=0, max_tokens=12)
    embeddings = OpenAIEmbeddings(model="bert", base_url=f"{URL}/v1", check_embedding_ctx_length=False)
    return _langchain(model, embeddings)


def langchain_openai_tools():
    model = ChatOpenAI(model="chatter", base_url=f"{URL}/v1", temperature=0, max_tokens=60)
    return _langchain_agent(model)


def langchain_openai_responses():
    model = ChatOpenAI(model="chatter", base_url=f"{URL}/v1", temperature=0, max_tokens=60, use_responses_api=True)
    return _langchain_agent(model)


def langchain_openai_parsed():
    model = ChatOpenAI(model="chatter", base_url=f"{URL}/v1", temperature=0, max_tokens=60)
    methods = ("json_schema", "function_calling")
    return [model.with_structured_output(Weather, method=one).invoke(QUESTION).model_dump() for one in methods]


def _llama_index(model="chatter"):
    return Ollama(model=model, base_url=URL, temperature=0, context_window=1024, additional_kwargs={"num_predict": 40})


def llama_index():
    model = _llama_index()
    turns = [ChatMessage(role="user", content=QUESTION)]
    return {
        "text": model.chat(turns).message.content,
        "deltas": [part.delta for part in model.stream_chat(turns)],
    }


def llama_index_parsed():
    return _llama_index().as_structured_llm(Weather).complete(QUESTION).raw.model_dump()


def llama_index_tools():
    model = _llama_index("caller")
    weather = FunctionTool.from_defaults(_get_weather)
    called = model.chat_with_tools([weather], user_msg=QUESTION)
    (call,) = model.get_tool_calls_from_response(called)
    turns = [ChatMessage(role="user", content=QUESTION), called.message]
    turns.append(ChatMessage(role="tool", content=str(weather(**call.tool_kwargs))))
    return {"call": [call.tool_name, call.tool_kwargs], "answer": _llama_index().chat(turns).message.content}


def _litellm(provider, base):
    given = {"model": f"{provider}/chatter", "temperature": 0, "api_base": base}
    turns = [{"role": "user", "content": QUESTION}]
    whole = litellm.completion(messages=turns, max_tokens=12, **given)
    parts = litellm.completion(messages=turns, max_tokens=12, stream=True, **given)
    parsed = litellm.completion(messages=turns, max_tokens=60, response_format=Weather, **given)
    return {
        "text": whole.choices[0].message.content,
        "deltas": [part.choices[0].delta.content or "" for part in parts],
        "usage": whole.usage.completion_tokens,
        "parsed": json.loads(parsed.choices[0].message.content),
    }


def _litellm_agent(provider, base, caller):
    given = {"temperature": 0, "api_base": base}
    schema = tool(_get_weather).tool_call_schema.model_json_schema()
    offered = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    forced = {"type": "function", "function": {"name": "get_weather"}}
    turns = [{"role": "user", "content": QUESTION}]
    called = litellm.completion(
        model=f"{provider}/{caller}", messages=turns, tools=offered, tool_choice=forced, max_tokens=60, **given
    )
    message = called.choices[0].message
    (call,) = message.tool_calls
    turns += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "clear, 3 C"}]
    answer = litellm.completion(model=f"{provider}/chatter", messages=turns, max_tokens=12, **given)
    arguments = json.loads(call.function.arguments)
    return {"call": [call.function.name, arguments], "answer": answer.choices[0].message.content}


def litellm_ollama_chat():
    return _litellm("ollama_chat", URL)


def litellm_openai():
    return _litellm("openai", f"{URL}/v1")


def litellm_openai_tools():
    return _litellm_agent("openai", f"{URL}/v1", "chatter")


def litellm_ollama_tools():
    return _litellm_agent("ollama_chat", URL, "caller")


def litellm_embeddings():
    found = {}
    for model, base in {"ollama/bert": URL, "openai/bert": f"{URL}/v1"}.items():
        answer = litellm.embedding(model=model, input=["the sky", "grass"], api_base=base)
        found[model] = [one["embedding"] for one in answer.data]
    return found


def litellm_errors():
    found = {}
    for model, base in {"ollama_chat/nope": URL, "openai/nope": f"{URL}/v1"}.items():
        try:
            litellm.completion(model=model, messages=[{"role": "user", "content": "x"}], api_base=base, max_retries=0)
        except Exception as error:
            found[model] = [type(error).__name__, "model 'nope' not found" in str(error)]
    return found
