"""Series of embeddings: simulated places over the year, and the pretraining of the module that reads them."""
