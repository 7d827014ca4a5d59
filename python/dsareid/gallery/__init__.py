"""A gallery that grows: rows of features in Milvus, embedded in a folder or on a server."""
