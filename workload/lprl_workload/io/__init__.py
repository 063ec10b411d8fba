"""Files of tensors, written aside and renamed."""
