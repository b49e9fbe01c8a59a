"""The retriever as other frameworks take it, a file each."""
