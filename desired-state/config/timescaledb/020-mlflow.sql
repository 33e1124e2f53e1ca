-- mlflow keeps its runs in a database of its own, beside the plates.
CREATE DATABASE mlflow;
