"""The sensor that is always there: what /proc and the socket tables show without a privilege."""
