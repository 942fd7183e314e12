"""Systems compared by what they draw: prompts, pictures, scores, reports."""
