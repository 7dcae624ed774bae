"""What tests share: real servers and services, small and thrown away."""
