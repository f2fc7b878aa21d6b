"""Streams an answer over HTTP with OpenAI's SDK.

python -m clients.examples.openai_sdk [URL]     (needs openai)
"""

import sys

from openai import OpenAI


def main(url: str = "http://localhost:8000") -> None:
    """Prints the pieces as they come."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none")  # the SDK wants a key, the service does not
    model = client.models.list().data[0].id
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hello"}], temperature=0, stream=True
    )
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
