"""What a frame costs: time by stage and by operator, arithmetic, memory; several backends side by side (`occport bench`)."""
