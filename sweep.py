"""The same run in many configurations, then their table and figures: python sweep.py -m psf.sigma=0.3,0.4,0.5"""

from s2sr.interruption import interruptible

if __name__ == "__main__":
    with interruptible():
        from s2sr.cli import main

        main("sweep")
