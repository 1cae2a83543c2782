"""What xpo costs beside other libraries, measured by programs that anyone can run."""
