"""Labels to maps and classes: heads on the encoder, adapters, or all of it, trained on labelled images or scenes."""
