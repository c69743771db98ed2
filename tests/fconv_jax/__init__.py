"""The tests of the library; `oracle`, `arrays` and `layer_cases` are what they share."""
