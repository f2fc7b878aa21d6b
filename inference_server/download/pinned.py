"""What exactly is downloaded where nobody says otherwise: commits of both hubs, and checksums of their files.

The checksums hold for both commits and for every mirror. LICENSE is pinned by the commit alone.
"""

REPOSITORY = "Qwen/Qwen3-4B-Instruct-2507"
REVISIONS = {
    "modelscope": "2de2439ea21be1dc5cb21f22f88af07e43393cbb",
    "huggingface": "cdbee75f17c01a7cc42f958dc650907174af0554",
}
NEWEST = {"modelscope": "master", "huggingface": "main"}
SHA256 = {
    "config.json": "5beea1a4a34c62782bfb2f911c606741a3bab8f92d80a118fa053c28af12e8ba",
    "generation_config.json": "835fffe355c9438e7a25be099b3fccaa98350b83451f9fd2d99512e74f1ade48",
    "model-00001-of-00003.safetensors": "75311d91bb08cf0b882913da464a1e722a31fb44db35208663487efb7a3d8ed6",
    "model-00002-of-00003.safetensors": "0b48adbb1f60e901153d91907ba11ce63bd4b8b584482e730f48808d055dfba1",
    "model-00003-of-00003.safetensors": "7dd39ccca5e4de123c74c14af44c9bf2eb75df33b4614382af0134528e060d5d",
    "model.safetensors.index.json": "d6c42883a895dfef5b0080ed2116a1bcd764f558406b98923d675978a1abf29c",
    "tokenizer.json": "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
    "tokenizer_config.json": "a62ff0a2472a0fa1b8eaabcb57c59b58afa42a22831dc141400b6e0cf2b65ce3",
}


def revision_of(repository: str, source: str) -> str:
    """The commit of the pinned repository; of any other one the newest."""
    return (REVISIONS if repository == REPOSITORY else NEWEST)[source]
