"""Raw videos -> square clips to train on: by a list of the field, or by the face in them."""
