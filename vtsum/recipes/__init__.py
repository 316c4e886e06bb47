"""What makes VTSum's own assets: the film, the drawn corpus and its tiny CLIP, the embedded model."""
