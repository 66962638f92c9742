"""What Headway is compared with: plain servers around the same model, as their own documentation writes them."""
