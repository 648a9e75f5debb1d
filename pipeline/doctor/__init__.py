"""The doctor: looks at every case of a data set, tells what is wrong and what is odd, and repairs what is safe."""
