"""Operations, one module each. They import only the domain and the ports."""
