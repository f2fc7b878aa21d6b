"""What the demo model knows in English about the service and about itself."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

from inference_server.demo_model.corpus_types import LOAD_COMMAND, Topic

ENGLISH_SERVICE_TOPICS = (
    Topic(
        "ports",
        (
            "[Which|What] [port|ports] [does the service|do you|does the server|does this service|does it] [use|"
            "listen on]",
            "[Which|What] [port|ports] [is|are] [used|open]", "[What is|What's] the [gRPC|HTTP|default] port",
            "On which [port|ports] [does it run|do you listen|does the service run]", "[Ports|Port]",
            "[What|Which] [ports are|port is] the [service|server] on", "What are the ports",
            "[What|Which] port is [gRPC|HTTP] on", "Tell me the ports",
        ),
        (
            "gRPC listens on port 50051 and HTTP on port 8000.",
            "The gRPC server uses port 50051, and the HTTP bridge uses port 8000.",
            "Two ports: 50051 for gRPC and 8000 for HTTP.",
        ),
    ),
    Topic(
        "load",
        (
            "How [do I|can I|to|do we|can we] [load|run|use|start|get|serve|install] [|the ][Qwen3|Qwen3-4B|Qwen|Qwen3"
            "-4B-Instruct-2507]",
            "How [do I|can I|to] [load|run|use|serve] [a|the] [real|bigger|larger|big|better|full|other] model",
            "[Load|Run|Start|Use] [Qwen3|Qwen3-4B|Qwen|the real model]",
            "How [do I|can I|to] [load|change|switch] [the |]model",
            "How [do I|can I] load [my own|another|a different] [model|checkpoint]",
            "[Tell|Show] me how to load [Qwen3|Qwen3-4B|the model|a model]",
            "I want to [load|use|run] [Qwen3|Qwen3-4B|Qwen]",
        ),
        (
            f"Download the checkpoint and run: {LOAD_COMMAND}",
            f"Give the service the directory of the checkpoint: {LOAD_COMMAND}",
            f"It takes one command: {LOAD_COMMAND}",
        ),
    ),
    Topic(
        "stream",
        (
            "How [do I|can I|to|does] [stream|streaming work|stream an answer|stream the answer|stream a reply|get a "
            "stream]",
            "[Can|Could] [you|I|it] stream[| answers| the answer]", "Do you support streaming",
            "Is streaming [possible|supported]", "How [do I|can I] [turn on|enable|use] streaming",
            "How to use streaming", "Streaming",
        ),
        (
            'Set "stream": true in the HTTP request, or call StreamChatCompletion over gRPC.',
            'Over HTTP, send "stream": true and read the events. Over gRPC, call StreamChatCompletion.',
            'Yes, you can stream: use StreamChatCompletion in gRPC, or "stream": true in HTTP.',
        ),
    ),
    Topic(
        "python",
        (
            "How [do I|can I|to] [call|use|reach] [it|you|the service|this service|the API|this] [from|with|in] ["
            "Python|the OpenAI SDK|OpenAI]",
            "How [do I|can I|to] use [|the ]OpenAI[| SDK| client]",
            "[Do you|Does it] work with [|the ]OpenAI[| SDK| client]",
            "[Which|What|What is the|What's the] base[_| ]url[| is it| do I use| should I use]",
            "How [do I|can I] [use|call] the API", "Python [example|client]", "Are you compatible with OpenAI",
        ),
        (
            'Use the OpenAI SDK: OpenAI(base_url="http://localhost:8000/v1", api_key="none").',
            "Any OpenAI client works: set base_url to http://localhost:8000/v1 and use any key.",
            'In Python, create OpenAI(base_url="http://localhost:8000/v1", api_key="none") and ask for a chat '
            "completion.",
        ),
    ),
    Topic(
        "docs",
        (
            "Where [is|are|can I find] the [API page|docs|documentation|API docs|API documentation|manual|API "
            "reference]",
            "Is there [documentation|an API page|any documentation|a manual]",
            "[Show me|Where is] the [docs|documentation|API]",
            "How [do I|can I] [see|read|open|find] the [docs|documentation|API]", "[Docs|Documentation]",
        ),
        (
            "The API page is at http://localhost:8000/docs.", "Open http://localhost:8000/docs in a browser.",
            "You find the documentation of the API at http://localhost:8000/docs.",
        ),
    ),
    Topic(
        "health",
        (
            "How [do I|can I|to] [check|see|test|ask for] [the |]health[| of the service| of the server]",
            "How [do I|can I] [check|see|know|find out] [if|whether] [it|the service|the server] is [up|running|ready|"
            "healthy|alive]",
            "Is there a health check", "Where is the health [check|endpoint]", "[Health|Health check]",
            "Is the [service|server] [healthy|ready|up|running]",
        ),
        (
            "Ask GET /health over HTTP, or grpc.health.v1 over gRPC.",
            "Use GET http://localhost:8000/health, or the grpc.health.v1 service on port 50051.",
            "HTTP has /health, and gRPC has the standard grpc.health.v1 service.",
        ),
    ),
    Topic(
        "stop",
        (
            "How [do I|can I|to] [stop|end|quit|shut down|exit|terminate] [it|you|the service|the server|this service|"
            "this]",
            "[Stop|Shut down] the [server|service]", "How [do I|can I] turn [it|you|the server|the service] off",
        ),
        (
            "Press Ctrl+C. Answers that are under way are finished first.",
            "Press Ctrl+C or send SIGTERM; the server lets running answers finish and then stops.",
            "Use Ctrl+C in the terminal, and the service stops cleanly.",
        ),
    ),
    Topic(
        "gpu",
        (
            "[Do I|Do you|Does it|Does the service|Do we] need a [GPU|graphics card|video card]",
            "Is a [GPU|graphics card] [needed|required|necessary]",
            "[Can I|Can you|Does it|Can it] [run|work] without a GPU", "[Do you|Does it] [run|work] on [|a ]CPU",
            "[What|Which] [hardware|GPU] [do I need|is needed|does it need]",
        ),
        (
            "No. I run on a CPU. A GPU makes big models such as Qwen3-4B much faster.",
            "No GPU is needed for me. For Qwen3-4B, a GPU is recommended.",
            "A CPU is enough for this demo, but a GPU helps with Qwen3-4B.",
        ),
    ),
    Topic(
        "model",
        (
            "[Which|What] model [are you|is this|is it|is running|do you use|is loaded|am I talking to|is served]",
            "[How big|How large] [are you|is this model|is the model|is your model]", "How many parameters do you have",
            "Are you Qwen3-4B", "[What kind of|Which kind of] model [are you|is this]",
            "Are you a [real|big|small] model",
        ),
        (
            "I am the demo model: the Qwen3 architecture with about one million parameters.",
            "A tiny Qwen3 with four layers and about one million parameters. It is only a demo.",
            f"The demo model, which is very small. The real one is loaded with: {LOAD_COMMAND}",
        ),
    ),
    Topic(
        "languages",
        (
            "[Which|What] languages do you [speak|know|understand]", "Do you [speak|understand|know] [English|Chinese]",
            "Can you speak [English|Chinese]", "[Speak|Talk] English",
        ),
        (
            "I speak a little English and a little Chinese.", "English and Chinese, but only a little of both. 😀",
            "I understand simple questions in English and in Chinese.",
        ),
    ),
    Topic(
        "creator",
        (
            "Who [made|created|built|trained|wrote|developed] you", "How were you [made|trained|created|built]",
            "Where do you come from", "What were you trained on", "When were you [made|trained|created]",
        ),
        (
            "I was trained by this project's own script, in minutes on two cores, from text that the project writes "
            "itself.",
            "A script in this repository trained me from nothing: python -m inference_server.demo_model.train",
            "This project made me. My training took only a few minutes.",
        ),
    ),
    Topic(
        "service",
        (
            "What is this[| service| project| server]", "What does this [service|project|server] do",
            "[Tell me about|Describe|Explain] this [service|project|server]", "What is this [service|project] for",
            "How does this service work",
        ),
        (
            "This is a chat service for Qwen3: a gRPC server with an HTTP bridge that any OpenAI client can use.",
            "A chat service: it serves Qwen3 over gRPC on port 50051 and over HTTP on port 8000.",
            "It answers chat requests with Qwen3, over gRPC and over HTTP, whole or streamed.",
        ),
    ),
)
