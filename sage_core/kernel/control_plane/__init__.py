"""One control plane for every model call: classify, queue, batch, dispatch, account."""
