// LangChain4j's client for Ollama: lists, chat, streams, tools, structured output, texts, embeddings, errors.
// It has no choice of tools: it refuses any but "auto" before it asks a server.

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.langchain4j.agent.tool.ToolExecutionRequest;
import dev.langchain4j.agent.tool.ToolSpecification;
import dev.langchain4j.data.message.AiMessage;
import dev.langchain4j.data.message.ChatMessage;
import dev.langchain4j.data.message.SystemMessage;
import dev.langchain4j.data.message.ToolExecutionResultMessage;
import dev.langchain4j.data.message.UserMessage;
import dev.langchain4j.data.segment.TextSegment;
import dev.langchain4j.model.StreamingResponseHandler;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.chat.request.ResponseFormat;
import dev.langchain4j.model.chat.request.ResponseFormatType;
import dev.langchain4j.model.chat.request.json.JsonObjectSchema;
import dev.langchain4j.model.chat.request.json.JsonSchema;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.CompleteToolCall;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.ollama.OllamaChatModel;
import dev.langchain4j.model.ollama.OllamaEmbeddingModel;
import dev.langchain4j.model.ollama.OllamaLanguageModel;
import dev.langchain4j.model.ollama.OllamaModels;
import dev.langchain4j.model.ollama.OllamaStreamingChatModel;
import dev.langchain4j.model.ollama.OllamaStreamingLanguageModel;
import dev.langchain4j.model.output.Response;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

public class Langchain4j {
    static final String URL = System.getenv("URL");
    static final ObjectMapper JSON = new ObjectMapper();
    static final UserMessage QUESTION = UserMessage.from("What is the weather in Oslo?");
    static final List<ChatMessage> MESSAGES = List.of(SystemMessage.from("Be brief."), QUESTION);
    static final ToolSpecification TOOL = ToolSpecification.builder()
            .name("get_weather")
            .description("The weather of a city")
            .parameters(JsonObjectSchema.builder()
                    .addEnumProperty("city", List.of("Oslo", "Rome"))
                    .addIntegerProperty("days")
                    .required("city", "days")
                    .build())
            .build();

    public static void main(String[] arguments) throws Exception {
        Map<String, Callable<Object>> scenarios = new LinkedHashMap<>();
        scenarios.put("models", Langchain4j::models);
        scenarios.put("chat", Langchain4j::chat);
        scenarios.put("stream", Langchain4j::stream);
        scenarios.put("tools", Langchain4j::tools);
        scenarios.put("tools_streamed", () -> toolsStreamed("caller"));
        scenarios.put("two_tools_streamed", () -> toolsStreamed("pair"));
        scenarios.put("parsed", Langchain4j::parsed);
        scenarios.put("json_mode", Langchain4j::jsonMode);
        scenarios.put("generate", Langchain4j::generate);
        scenarios.put("embeddings", Langchain4j::embeddings);
        scenarios.put("errors", Langchain4j::errors);
        for (var scenario : scenarios.entrySet()) {
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("name", scenario.getKey());
            try {
                line.put("result", scenario.getValue().call());
            } catch (Exception error) {
                StringWriter trace = new StringWriter();
                error.printStackTrace(new PrintWriter(trace));
                line.put("error", trace.toString());
            }
            System.out.println(JSON.writeValueAsString(line));
        }
        System.exit(0); // the client's threads are no reason to stay
    }

    static OllamaChatModel.OllamaChatModelBuilder model(String name, int limit) {
        var builder = new OllamaChatModel.OllamaChatModelBuilder();
        builder.baseUrl(URL).modelName(name).temperature(0.0).numPredict(limit).timeout(Duration.ofMinutes(2));
        return builder.maxRetries(0);
    }

    static OllamaStreamingChatModel streaming(String name, int limit) {
        var builder = new OllamaStreamingChatModel.OllamaStreamingChatModelBuilder();
        builder.baseUrl(URL).modelName(name).temperature(0.0).numPredict(limit).timeout(Duration.ofMinutes(2));
        return builder.build();
    }

    static Object models() {
        OllamaModels client = OllamaModels.builder().baseUrl(URL).maxRetries(0).build();
        var listed = client.availableModels().content();
        var card = client.modelCard("chatter").content();
        model("chatter", 1).build().chat(QUESTION);
        var running = client.runningModels().content();
        return Map.of(
                "listed", listed.stream().map(one -> one.getName()).toList(),
                "dated", listed.stream().allMatch(one -> one.getModifiedAt() != null),
                "capabilities", card.getCapabilities(),
                "running", running.stream().map(one -> one.getName()).toList(),
                "context", running.get(0).getContextLength());
    }

    static Object chat() {
        ChatResponse answer = model("chatter", 12).build().chat(MESSAGES);
        return Map.of(
                "text", answer.aiMessage().text(),
                "finish", answer.finishReason().name(),
                "usage", List.of(answer.tokenUsage().inputTokenCount(), answer.tokenUsage().outputTokenCount()));
    }

    static Object stream() throws Exception {
        List<String> deltas = new ArrayList<>();
        ChatResponse answer = streamed(streaming("chatter", 12), request(MESSAGES), deltas, new ArrayList<>());
        return Map.of(
                "deltas", deltas,
                "text", answer.aiMessage().text(),
                "finish", answer.finishReason().name(),
                "usage", List.of(answer.tokenUsage().inputTokenCount(), answer.tokenUsage().outputTokenCount()));
    }

    static Object tools() throws Exception {
        ChatRequest asked = request(List.of(QUESTION)).toBuilder().toolSpecifications(TOOL).build();
        ChatResponse called = model("caller", 60).build().chat(asked);
        return Map.of("calls", calls(called), "finish", called.finishReason().name(), "answer", answer(called));
    }

    static Object toolsStreamed(String model) throws Exception {
        ChatRequest asked = request(List.of(QUESTION)).toBuilder().toolSpecifications(TOOL).build();
        List<ToolExecutionRequest> completed = new ArrayList<>();
        ChatResponse called = streamed(streaming(model, 60), asked, new ArrayList<>(), completed);
        return Map.of(
                "calls", calls(called),
                "completed", calls(completed),
                "finish", called.finishReason().name(),
                "answer", answer(called));
    }

    /** What the real model says when it is given the results of calls, which this client sends without names and ids. */
    static String answer(ChatResponse called) {
        AiMessage message = called.aiMessage();
        List<ChatMessage> turns = new ArrayList<>(List.of(QUESTION, message));
        for (ToolExecutionRequest call : message.toolExecutionRequests())
            turns.add(ToolExecutionResultMessage.from(call, "clear, 3 C"));
        ChatRequest asked = request(turns).toBuilder().toolSpecifications(TOOL).build();
        return model("chatter", 12).build().chat(asked).aiMessage().text();
    }

    static Object parsed() throws Exception {
        JsonObjectSchema weather = JsonObjectSchema.builder()
                .addEnumProperty("sky", List.of("clear", "grey"))
                .addIntegerProperty("degrees")
                .required("sky", "degrees")
                .build();
        ResponseFormat format = ResponseFormat.builder()
                .type(ResponseFormatType.JSON)
                .jsonSchema(JsonSchema.builder().name("weather").rootElement(weather).build())
                .build();
        ChatRequest asked = request(MESSAGES).toBuilder().responseFormat(format).build();
        return object(model("chatter", 60).build().chat(asked).aiMessage().text());
    }

    static Object jsonMode() throws Exception {
        ChatRequest asked = request(MESSAGES).toBuilder().responseFormat(ResponseFormat.JSON).build();
        return object(model("chatter", 200).build().chat(asked).aiMessage().text());
    }

    static Object generate() throws Exception {
        OllamaLanguageModel whole = OllamaLanguageModel.builder()
                .baseUrl(URL).modelName("chatter").temperature(0.0).numPredict(12).build();
        OllamaStreamingLanguageModel parts = OllamaStreamingLanguageModel.builder()
                .baseUrl(URL).modelName("chatter").temperature(0.0).numPredict(12).build();
        CompletableFuture<String> joined = new CompletableFuture<>();
        List<String> deltas = new ArrayList<>();
        parts.generate("Once upon a", new StreamingResponseHandler<String>() {
            public void onNext(String delta) {
                deltas.add(delta);
            }

            public void onComplete(Response<String> answer) {
                joined.complete(answer.content());
            }

            public void onError(Throwable error) {
                joined.completeExceptionally(error);
            }
        });
        String streamed = joined.get();
        String text = whole.generate("Once upon a").content();
        return Map.of("text", text, "streamed", streamed, "deltas", deltas);
    }

    static Object embeddings() {
        OllamaEmbeddingModel model = OllamaEmbeddingModel.builder().baseUrl(URL).modelName("bert").build();
        List<TextSegment> texts = List.of(TextSegment.from("the sky"), TextSegment.from("grass"));
        return model.embedAll(texts).content().stream().map(one -> one.vectorAsList()).toList();
    }

    static Object errors() throws Exception {
        Map<String, Object> found = new LinkedHashMap<>();
        found.put("unknown", failure(() -> model("nope", 1).build().chat(MESSAGES)));
        found.put("no_chat", failure(() -> model("bert", 1).build().chat(MESSAGES)));
        found.put("streamed", failure(
                () -> streamed(streaming("nope", 1), request(MESSAGES), new ArrayList<>(), new ArrayList<>())));
        found.put("no_server", failure(() -> model("x", 1).baseUrl("http://127.0.0.1:9").build().chat(MESSAGES)));
        return found;
    }

    static ChatRequest request(List<ChatMessage> messages) {
        return ChatRequest.builder().messages(messages).build();
    }

    static ChatResponse streamed(
            OllamaStreamingChatModel model, ChatRequest asked, List<String> deltas, List<ToolExecutionRequest> calls)
            throws Exception {
        CompletableFuture<ChatResponse> answer = new CompletableFuture<>();
        model.chat(asked, new StreamingChatResponseHandler() {
            @Override
            public void onPartialResponse(String delta) {
                deltas.add(delta);
            }

            @Override
            public void onCompleteToolCall(CompleteToolCall call) {
                calls.add(call.toolExecutionRequest());
            }

            @Override
            public void onCompleteResponse(ChatResponse whole) {
                answer.complete(whole);
            }

            @Override
            public void onError(Throwable error) {
                answer.completeExceptionally(error);
            }
        });
        return answer.get();
    }

    static List<Object> calls(ChatResponse answer) throws Exception {
        return calls(answer.aiMessage().toolExecutionRequests());
    }

    static List<Object> calls(List<ToolExecutionRequest> requests) throws Exception {
        List<Object> found = new ArrayList<>();
        for (ToolExecutionRequest call : requests) found.add(List.of(call.name(), object(call.arguments())));
        return found;
    }

    static Map<String, Object> object(String text) throws Exception {
        return JSON.readValue(text, new TypeReference<Map<String, Object>>() {});
    }

    /** The class of an exception and its message; fails when there is none. */
    static List<String> failure(Callable<Object> call) throws Exception {
        try {
            call.call();
        } catch (Exception error) {
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            return List.of(cause.getClass().getSimpleName(), String.valueOf(cause.getMessage()));
        }
        throw new IllegalStateException("nothing was refused");
    }
}
