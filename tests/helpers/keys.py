"""The keys of a text's tokens, by their definition."""

from latentlens_dag.storage.hashing import hash_bytes


def prefix_keys(ids: list[int]) -> list[str]:
    """The hashes of the token ids up to and with each."""
    return [hash_bytes(_bytes(ids[: end + 1])) for end in range(len(ids))]


def sentence_keys(ids: list[int]) -> list[str]:
    """The hashes of all token ids and the number of each."""
    return [hash_bytes(_bytes([*ids, number])) for number in range(len(ids))]


def _bytes(numbers: list[int]) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)
