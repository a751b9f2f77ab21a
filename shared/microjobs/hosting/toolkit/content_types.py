"""Content types of the `sagemaker-inference` convention."""

JSON = "application/json"
CSV = "text/csv"
OCTET_STREAM = "application/octet-stream"
ANY = "*/*"
NPY = "application/x-npy"
NPZ = "application/x-npz"
UTF8_TYPES = [JSON, CSV]
"""Bodies of these types reach `input_fn` as str, all others as bytes."""
