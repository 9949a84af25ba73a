"""Reconstruct one scene: python train.py data=geotiff data.root=FOLDER strategy=lbfgs_adam psf=sentinel2"""

from s2sr.interruption import interruptible

if __name__ == "__main__":
    with interruptible():
        from s2sr.cli import main

        main("train")
