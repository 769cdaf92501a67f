"""The embeddings cache: vectors and labels of the samples, embeddings of the prompts."""
