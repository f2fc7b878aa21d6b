"""Streams an answer over gRPC with the generated stubs.

python -m clients.examples.grpc_stubs [ADDRESS]
"""

import sys

import grpc

from protos.chat.v1 import chat_pb2, chat_pb2_grpc


def main(address: str = "localhost:50051") -> None:
    """Prints the pieces as they come, then the counts."""
    question = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="你好，介绍一下你自己")
    request = chat_pb2.ChatCompletionRequest(messages=[question], temperature=0.0)
    with grpc.insecure_channel(address) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).StreamChatCompletion(request, timeout=60)
        for chunk in call:
            print(chunk.choices[0].content, end="", flush=True)
    print(f"\n{chunk.usage.completion_tokens} tokens, {chunk.timings.tokens_per_second:.0f} a second")


if __name__ == "__main__":
    main(*sys.argv[1:])
