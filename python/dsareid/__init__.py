"""DSA-reID: densely semantically aligned person re-identification.

dsareid.texture      part textures of one image and its DensePose map
dsareid.models       the networks
dsareid.evaluation   mAP and CMC
dsareid.commands.main          the command `dsareid`
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    # Loaded on use, so that `import dsareid` and the processes of `dsareid synth` need no torch.
    if name == "texture":
        from dsareid.densepose.textures import texture

        return texture
    raise AttributeError(f"module 'dsareid' has no attribute {name!r}")
