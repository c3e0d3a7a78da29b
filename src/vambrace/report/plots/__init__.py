"""Pictures as pure functions: numbers in, inline SVG out, colours by CSS class, so one picture serves every theme."""
