"""What jobs of the training process share: stores, pictures, signs of life, plans and promotion."""
