from collections.abc import Sequence

def cut(
    tokens: Sequence[int], batch_tokens: int, batch_rows: int, waste_share: float, waste_tokens: int
) -> list[list[int]]: ...
