"""Asks over gRPC with nothing but the server's own description of itself: no stubs, no proto file.

python -m clients.examples.grpc_reflection [ADDRESS]     (needs grpcio-reflection)
"""

import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "chat.v1.ChatService"


def main(address: str = "localhost:50051") -> None:
    """Prints the answer as JSON."""
    with grpc.insecure_channel(address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(SERVICE).methods_by_name["CreateChatCompletion"]
        request = GetMessageClass(method.input_type)()
        json_format.ParseDict({"messages": [{"role": "ROLE_USER", "content": "Hello"}], "temperature": 0}, request)
        ask: grpc.UnaryUnaryMultiCallable[Message, Message] = channel.unary_unary(
            f"/{SERVICE}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        print(json_format.MessageToJson(ask(request, timeout=60), ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
