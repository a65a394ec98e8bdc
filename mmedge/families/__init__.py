"""One file per kind of model, named as the checkpoint's ``model_type``; the file name is the registration."""
