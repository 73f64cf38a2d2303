"""Cuts rows of tokens into batches with little padding."""

cimport cython
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc, qsort


cdef int _ascending(const void* left, const void* right) noexcept nogil:
    cdef int64_t one = (<const int64_t*> left)[0]
    cdef int64_t other = (<const int64_t*> right)[0]
    return (one > other) - (one < other)


def cut(tokens, int64_t batch_tokens, int64_t batch_rows, double waste_share, int64_t waste_tokens):
    """Cut places into lean batches, shortest first, ties by place; lengths are below 2**31.

    A batch holds one row, or at most `batch_rows` rows of at most `batch_tokens` padded tokens, of which the padding is
    at most `waste_share` of the real tokens or `waste_tokens`.
    """
    cdef list given = list(tokens)
    cdef Py_ssize_t count = len(given)
    cdef Py_ssize_t at
    cdef int32_t length
    cdef int64_t* rows
    cdef list parts = []
    if count >= 2**31:
        raise OverflowError("more rows than 2**31")
    rows = <int64_t*> malloc(max(count, 1) * sizeof(int64_t))
    if rows is NULL:
        raise MemoryError
    try:
        for at in range(count):
            # Raises OverflowError for a length that does not fit, so that no product below can overflow.
            length = given[at]
            # Length above, place below: one comparison sorts by both.
            rows[at] = (<int64_t> length << 32) | at
        with nogil:
            qsort(rows, count, sizeof(int64_t), _ascending)
        _close(rows, count, batch_tokens, batch_rows, waste_share, waste_tokens, parts)
    finally:
        free(rows)
    return parts


# Proven: `at` runs over range(count), the size of `rows`, and no Python sequence is indexed.
@cython.boundscheck(False)
@cython.wraparound(False)
cdef int _close(
    const int64_t* rows,
    Py_ssize_t count,
    int64_t batch_tokens,
    int64_t batch_rows,
    double waste_share,
    int64_t waste_tokens,
    list parts,
) except -1:
    cdef Py_ssize_t at
    cdef int64_t length, padded, held = 0, total = 0
    cdef double allowed
    cdef list part = []
    for at in range(count):
        # Sorted, so the newest row is the longest of its batch.
        length = rows[at] >> 32
        padded = length * (held + 1)
        if held:
            allowed = waste_share * <double> (total + length)
            if allowed < waste_tokens:
                allowed = <double> waste_tokens
            if padded > batch_tokens or held >= batch_rows or <double> (padded - total - length) > allowed:
                parts.append(part)
                part = []
                held = 0
                total = 0
        part.append(rows[at] & 0xFFFFFFFF)
        held += 1
        total += length
    if held:
        parts.append(part)
    return 0
