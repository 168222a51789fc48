"""A small tag-pretrained Llama; see README.md, its model card."""
