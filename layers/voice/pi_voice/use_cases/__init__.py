"""Operations of the product, one module each. They see the domain and the ports."""
