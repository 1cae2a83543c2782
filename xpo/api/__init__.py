"""The vocabulary of xpo: what a plugin sees. Import the same words from ``xpo`` itself."""
