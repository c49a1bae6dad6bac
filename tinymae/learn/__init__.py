"""The course: lessons, exercises, and the checks that explain a mistake."""
