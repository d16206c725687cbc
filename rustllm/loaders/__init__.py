"""Files: detection, text and streams, GGUF and safetensors."""
