"""The evaluation of models whose labels are independent, on clips with any number of labels."""
